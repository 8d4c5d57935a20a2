"""Tests of the local DynamoDB, mostly through boto3 over HTTP."""
