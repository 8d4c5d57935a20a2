"""Demo: a local DynamoDB with live orders, Dagster on top of it, one screen of live figures."""
