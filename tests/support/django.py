"""Applications of Django's, made from a few routes and without a project."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.test import override_settings

__all__ = ["configure", "serving_by_django"]


def configure() -> None:
    """Let Django be used in this process."""
    if not settings.configured:
        apps = ["django.contrib.contenttypes", "django.contrib.auth"]
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="-", ROOT_URLCONF=(), INSTALLED_APPS=apps)
        django.setup()


@contextmanager
def serving_by_django(patterns: tuple[Any, ...], *middleware: str) -> Generator[Any]:
    """Yield an application that serves `patterns` inside `middleware`."""
    configure()
    with override_settings(ROOT_URLCONF=patterns, MIDDLEWARE=list(middleware)):
        yield get_asgi_application()
