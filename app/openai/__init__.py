"""The door for stock clients: requests of OpenAI's API as questions, and answers as its objects."""
