"""The objects that hold the shop's state. They belong to no application until ``create_app`` says so."""

from flask_sqlalchemy_lite import SQLAlchemy

from flask_stateful import Stateful

db = SQLAlchemy()
state = Stateful(db=db)
