"""A small Django project, as its users have it: two apps, a data migration, a view."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

SETTINGS = """
SECRET_KEY = "not one"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shop", "news"]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "production", "HOST": "10.255.255.1"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "project.urls"
STATIC_URL = "static/"
USE_TZ = True
"""
URLS = """
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from shop.models import Item

@csrf_exempt
def items(request):
    if request.method == "POST":
        Item.objects.create(name=request.POST["name"])
    return JsonResponse({"items": list(Item.objects.order_by("id").values_list("name", flat=True))})

urlpatterns = [path("items", items)]
"""
ITEMS = """
from django.db import models

class Item(models.Model):
    name = models.TextField(unique=True)
"""
POSTS = """
from django.db import models

class Post(models.Model):
    item = models.ForeignKey("shop.Item", models.CASCADE, null=True)
    title = models.TextField()
"""
TABLE = """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    dependencies = {dependencies}
    operations = [
        migrations.CreateModel("{model}", [("id", models.BigAutoField(primary_key=True)), {fields}]),
    ]
"""
SEED = """
from django.db import migrations

def seed(apps, editor):
    print("migrating")
    apps.get_model("shop", "Item").objects.using(editor.connection.alias).create(name="seed")

class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(seed)]
"""
# In test files: what each test must find, whatever ran before it.
CLEAN = """
import threading

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from news.models import Post
from shop.models import Item

def clean():
    assert list(Item.objects.values_list("id", "name")) == [(1, "seed")]
    assert not Post.objects.exists()
    assert ContentType.objects.filter(app_label="shop").count() == 1
    assert Permission.objects.filter(content_type__app_label="shop").count() == 4
    remembered = ContentType.objects.get_for_model(Item)
    assert ContentType.objects.filter(pk=remembered.pk).exists()
"""


class DjangoProject:
    """The project, in the directory of an inner run.

    :param project: of the fixture of that name.
    """

    def __init__(self, project: Any) -> None:
        self.project = project
        self.file = project.file
        self.conftest = project.conftest
        self.ini()
        self.settings()
        for app in ("project", "shop", "news", "shop/migrations", "news/migrations"):
            self.file(f"{app}/__init__.py", "")
        self.file("project/urls.py", URLS)
        self.file("shop/models.py", ITEMS)
        self.file("news/models.py", POSTS)
        name, title = '("name", models.TextField(unique=True))', '("title", models.TextField())'
        item = '("item", models.ForeignKey("shop.Item", models.CASCADE, null=True))'
        self.file("shop/migrations/0001_initial.py", TABLE.format(dependencies=[], model="Item", fields=name))
        self.file("shop/migrations/0002_seed.py", SEED)
        after = [("shop", "0001_initial")]
        table = TABLE.format(dependencies=after, model="Post", fields=f"{item}, {title}")
        self.file("news/migrations/0001_initial.py", table)

    def ini(self, **options: str) -> None:
        given = {
            "asyncio_mode": "auto",
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "pythonpath": ".",
            "tdd_django": "true",
            **options,
        }
        self.project.ini(**{name: value for name, value in given.items() if value})

    def settings(self, more: str = "") -> None:
        self.file("project/settings.py", SETTINGS + more)

    def only_here(self) -> None:
        """Migrations that nobody else has: their template is not there yet."""
        self.file("shop/migrations/0002_seed.py", SEED + f"# {self.project.pytester.path}")

    def run(self, tests: str | None, *arguments: str, **options: Any) -> Any:
        return self.project.run(tests and CLEAN + dedent(tests), *arguments, **options)
