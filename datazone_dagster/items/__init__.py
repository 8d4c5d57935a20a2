"""DynamoDB JSON: canonical keys and numbers, checks of images, and masks."""
