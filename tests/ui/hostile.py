"""What somebody may write who wants a page to do something else than show it."""

TEXTS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=document.title='owned'>",
    "'-document.title-'",
    "javascript:document.title='owned'",
    "{{ 7*7 }}{% for x in y %}",
    "</pre></details><iframe srcdoc=\"<script>parent.document.title='owned'</script>\">",
    "\u202e<b>bold</b>&lt;script&gt;",
    "hx-on:load='x' data-hx-get='/logout' data-hx-trigger='load'",
    "<hx-partial hx-target='body' hx-swap='innerHTML'><h1>owned</h1></hx-partial>",
)
ALL = " ".join(TEXTS)
