"""Tells a URL of a task's end, by the Standard Webhooks specification 1.0.0 (https://www.standardwebhooks.com)."""
