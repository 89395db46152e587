"""Hostile text, and a reader of pages, for the tests of the browser."""

import html.parser

#: Text that would run, load or break out of its place if it were taken for markup.
HOSTILE = (
    '</title></pre></script><!--<script>window.owned = 1</script>"\'><img src=x onerror="window.owned = 2">'
    '<svg onload=window.owned=3></svg><iframe src="javascript:window.owned=4"></iframe>'
    '<a href="javascript:window.owned=5">a</a><meta http-equiv=refresh content=0;url=http://evil.invalid/>'
    "<style>body{display:none}</style>&lt;b&gt;\x1b[31m\u202e\x00\ud800"
)
#: What pages show of it.
SHOWN = (
    HOSTILE.replace("\x1b", "␛").replace("\u202e", "\ufffd").replace("\x00", "␀").replace("\ud800", "\ufffd")
)
PLAIN, EVIL, RANKED = "flan.plain", "crossfit.evil", "super_natural_instructions.ranked"


class Page(html.parser.HTMLParser):
    """Elements and texts of a page, with what stands in marks and in `pre` elements."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.prompts, self.marks = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        if tag == "pre":
            self.prompts.append("")
            self.marks.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "pre" in self.open:
            self.prompts[-1] += data
            self.marks[-1] += data if "mark" in self.open else ""

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
