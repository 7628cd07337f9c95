"""The bundled model, prompts and adapters."""
