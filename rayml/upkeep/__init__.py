"""What a store needs over the years: to be checked, copied, tidied, and asked how it is."""
