"""The HTTP API and the web page over one shelf (extra `serve`).

How a request goes: `security.py` looks at host, origin and token, `limits.py` at size, rate and
time; a route (`routes/`, and `pages/` for people) parses it and calls one method of the
`Service` (`service.py`, at `request.app.state.service`), through `await service.run(...)` so that
the event loop never computes; every `KinshelfError` becomes one JSON shape in `errors.py`.
Pictures are decoded in processes that can be killed (`decoding.py`, `decoder.py`), and pictures
and texts of requests that come together are encoded together (`encoder.py`).

Addresses: the API owns /classify /similar /products /evaluate /audit /train /jobs /info /history
/healthz /metrics /openapi.json; the page owns /, /page/... and /static/...
"""
