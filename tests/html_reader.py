"""Reader of HTML pages for tests: tags that must match, links, and text."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link"}


class Reader(HTMLParser):
    """Elements, links, ids and visible text of a page whose tags must match; event handlers are refused."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.text = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given[name] for name in ("href", "src", "srcset", "action", "data") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        assert not [name for name in given if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
