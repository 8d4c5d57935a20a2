"""DynamoDB JSON becomes Arrow: canonical keys, and the check of images that don't parse."""
