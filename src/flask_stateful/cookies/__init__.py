"""Cookies that are sealed, signed or plain, within the limits that browsers keep."""
