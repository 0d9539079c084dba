"""The controller's HTTP surface: public (OpenAI's API) and fleet (workers and operators)."""
