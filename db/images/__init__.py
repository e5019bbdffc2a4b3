"""Pictures: decoding with limits, downloading from public addresses only, the cache by content.

Others use `decode.open_image`, `download.Downloader`, `cache.ImageCache` and `addresses.check_url`.
"""
