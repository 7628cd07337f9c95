"""What the pages share: the one-time start-up, the page's state in the URL, and blocks that several pages draw."""
