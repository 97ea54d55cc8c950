"""Recipes: each trains, calibrates or measures one part, and writes down how, from one command."""
