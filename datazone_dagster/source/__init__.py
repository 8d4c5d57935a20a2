"""Where changes come from: DynamoDB and its streams. The only room that knows boto3."""
