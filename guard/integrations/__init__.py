"""Clients and frameworks with both doors in them; each module needs the library that it is named after."""
