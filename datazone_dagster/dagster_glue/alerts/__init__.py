"""Alerts: events of checks, and where they are sent."""
