"""A Django project in one file beside the rooms. Run: uvicorn django_app:app --port 9000 (or any WSGI server: wsgi)."""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from innkeeper import Innkeeper

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "only for this example")
)
django.setup()


def order(_request: HttpRequest, number: int) -> JsonResponse:
    """Tell a room of an order; views without ``async`` use the client without ``await``."""
    with Innkeeper.connect_sync(os.environ.get("INNKEEPER_REDIS", "redis://127.0.0.1:6379/0")) as rooms:
        rooms.room("sink/orders").post({"n": number})
    return JsonResponse({"posted": number})


urlpatterns = [path("orders/<int:number>", order)]
app = get_asgi_application()
wsgi = get_wsgi_application()
