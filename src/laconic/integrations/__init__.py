"""Integrations with Lightning, Accelerate and Hugging Face's Trainer; each module imports its package."""
