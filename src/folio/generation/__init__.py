"""A model and a prompt -> tokens. This room knows neither paths nor runs."""
