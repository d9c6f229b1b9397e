"""The record of every run: who writes it, who feeds it, and who reads it without either."""
