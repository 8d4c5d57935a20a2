"""The local DynamoDB, seen through boto3 over HTTP."""
