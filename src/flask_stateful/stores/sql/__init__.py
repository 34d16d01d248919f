"""A store in a SQL database, through SQLAlchemy Core."""
