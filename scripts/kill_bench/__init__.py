"""Kills processes of a running fleet at random under load, and looks whether anything is lost."""
