"""The one object that holds the shop's state. It belongs to no application until ``create_app`` says so."""

from flask_stateful import Stateful

state = Stateful()
