"""DynamoDB and its streams as a source of changes. The only package that imports boto3."""
