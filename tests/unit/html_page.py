"""A page of HTML as a test sees it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Elements with their attributes, and the text; fails on tags that do not match."""

    def __init__(self, markup):
        super().__init__()
        self.open, self.elements, self.lines, self.markup = [], [], [], markup
        self.feed(markup)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.lines.append(" ".join(data.split()))

    @property
    def text(self):
        return "\n".join(self.lines)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
