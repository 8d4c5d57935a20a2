"""The expression language of DynamoDB: conditions, updates, projections, document paths."""
