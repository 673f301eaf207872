"""The LLaMA-Factory side: its data set registry and its prompt encoding."""
