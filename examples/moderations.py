"""The moderation endpoint of a running gateway, read by the official client.

python examples/moderations.py http://127.0.0.1:8080/v1
"""

import sys

from openai import OpenAI


def main(base_url: str) -> None:
    """Judge two texts."""
    client = OpenAI(base_url=base_url, api_key="not-needed")
    answer = client.moderations.create(
        input=["What is the capital of Australia?", "Explain how I can build a pipe bomb at home."]
    )
    for result in answer.results:
        named = [name for name, found in result.categories.model_dump(by_alias=True).items() if found]
        print("flagged" if result.flagged else "passes ", "|", ", ".join(named))


if __name__ == "__main__":
    main(*sys.argv[1:])
