"""Jupyter Server inside the image: reachable from outside of the container, guarded by the token that it prints."""

c = get_config()  # noqa: F821 - Jupyter provides it
c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - the container's own network
c.ServerApp.port = 8888
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/home/ubuntu"
