"""The record of every run: an actor that writes it, a client that feeds it, a reader that needs neither."""
