"""A model and tokens -> numbers. This room knows neither paths nor runs."""
