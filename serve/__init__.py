"""The HTTP API and the web page over one shelf (extra `serve`).

How a request goes: `http/proxies` takes what a proxy in front tells; `http/security` checks host,
origin and token; `http/limits` size, rate and time. A route (`routes/`, and `pages/` for people)
parses it and calls one method of the `Service` (`service/service`, at `request.app.state.service`),
through `await service.run(...)`, so that the event loop never computes. Every `KinshelfError`
becomes one JSON shape in `base/errors`, or a page for people (`pages/failures`).

All threads share one shelf handle. The model has a process of its own, which is started again if it
dies or hangs. Pictures are decoded in processes that can be killed. What several requests ask at a
time is encoded and judged as one batch (`workers/`). A picture comes as bytes or by URL, never by a
path. Writes take turns, wait a while for other processes, and are answered once they are durable.
At SIGTERM the server takes no new request and finishes those under way.

The page is rendered on the server; htmx swaps parts, and without scripts every form still works.

Addresses: the API owns /classify /classify-stored /similar /products /evaluate /audit /train /jobs
/info /history /healthz /metrics /openapi.json; the page owns /, /page/... and /static/...
"""
