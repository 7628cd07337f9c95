"""The base model in memory: device, chat template, batches of prompts and responses, and answers."""
