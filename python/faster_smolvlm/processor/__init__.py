"""Pictures, clips and text together: the processor of the Transformers API."""
