"""The agent's faces: requests to events, effects to replies. No rule lives here."""
