"""Django under ASGI: `request.user`, and the decorator for single views."""

import gc
import importlib
import json
import sys
import weakref
from collections.abc import Callable, Generator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.context_processors import PermWrapper
from django.contrib.auth.decorators import login_not_required, login_required, permission_required
from django.db import connections, transaction
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path
from django.utils.decorators import async_only_middleware, method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_protect

from dpop_middleware import DPoPMiddleware, DPoPPolicy
from dpop_middleware.django import TokenUser, dpop_user, requires_dpop
from dpop_middleware.errors import ConfigurationError
from dpop_middleware.events import AuthenticationEvent
from tests.support.adapters import Fields, World, scope_of
from tests.support.asgi import Answer, call
from tests.support.django import configure, serving_by_django

US = "dpop_middleware.django.dpop_user"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
LOCAL_CACHE = "django.core.cache.backends.locmem.LocMemCache"
ANONYMOUS = f"{__name__}.anonymous"
SESSION_USER = f"{__name__}.session_user"
ASYNC_SESSION_USER = f"{__name__}.async_session_user"


@pytest.fixture
def world() -> World:
    return World()


def session_user(get_response: Any) -> Any:
    """Represents a middleware that logs a user in by a session."""

    def middleware(request: Any) -> Any:
        request.user = "session"
        return get_response(request)

    return middleware


def anonymous(get_response: Any) -> Any:
    """Stands for what finds no session."""
    # Django's models want its settings first.
    from django.contrib.auth.models import AnonymousUser

    def middleware(request: Any) -> Any:
        request.user = AnonymousUser()
        return get_response(request)

    return middleware


@async_only_middleware  # type: ignore[untyped-decorator]
def async_session_user(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        request.user = "session"
        return await get_response(request)

    return middleware


def whoami(request: Any, **_more: Any) -> HttpResponse:
    return HttpResponse(str(request.user).encode())


async def async_whoami(request: Any, **_more: Any) -> HttpResponse:
    return HttpResponse(str(await request.auser() if hasattr(request, "auser") else request.user).encode())


@login_not_required  # type: ignore[untyped-decorator]
def open_to_all(request: Any) -> HttpResponse:
    return whoami(request)


Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Generator[Serve]:
    """Return a function that makes an application of Django's from a view and middleware."""
    with ExitStack() as stack:

        def application(view: Any, *middleware: str) -> Any:
            return stack.enter_context(serving_by_django((path("notes", view),), *middleware))

        yield application


async def ask(app: Any, fields: Fields | None = None, **options: Any) -> Answer:
    return await call(app, scope_of("/notes", fields=fields, **options))


@pytest.mark.parametrize("view", [whoami, async_whoami])
async def test_a_view_is_reached_with_credentials_only(world: World, serve: Serve, view: Any) -> None:
    app = serve(requires_dpop(world.server(), "notes:read")(view), SESSION_USER)
    assert (await ask(app, world.fields("/notes", scopes=["notes:read"]))).body == b"user123"
    refused = await ask(app)
    assert (refused.status, refused.values("cache-control")) == (401, ["no-store"])
    assert refused.challenges[0].startswith("DPoP ")
    assert (await ask(app, world.fields("/notes"))).status == 403
    assert json.loads((await ask(app, [("Authorization", "DPoP")])).body)["error"] == "invalid_request"


async def test_a_replay_is_refused(world: World, serve: Serve) -> None:
    app = serve(requires_dpop(world.server())(whoami))
    fields = world.fields("/notes")
    assert [(await ask(app, fields)).status for _ in range(2)] == [200, 401]


@pytest.mark.parametrize("view", [whoami, async_whoami])
@pytest.mark.parametrize(
    ("scopes", "outcomes"), [(["read"], [("refused", "scope")]), (["read", "write"], [("accepted", None)])]
)
async def test_a_request_that_two_decorators_judge_is_one_event(
    world: World, serve: Serve, view: Any, scopes: list[str], outcomes: list[tuple[str, str | None]]
) -> None:
    events: list[AuthenticationEvent] = []
    server = world.server(on_event=events.append)
    app = serve(requires_dpop(server, "read")(requires_dpop(server, "write")(view)))
    await ask(app, world.fields("/notes", scopes=scopes))
    assert [(event.outcome, event.check) for event in events] == outcomes


async def test_views_may_be_classes(world: World, serve: Serve) -> None:
    class Notes(View):  # type: ignore[misc] # Django has no types
        def get(self, request: Any) -> HttpResponse:
            return whoami(request)

        async def post(self, request: Any) -> HttpResponse:
            raise AssertionError("one that is sync and async is no view of Django's")

    class Sync(View):  # type: ignore[misc] # Django has no types
        def get(self, request: Any) -> HttpResponse:
            return whoami(request)

    class Async(View):  # type: ignore[misc] # Django has no types
        async def get(self, request: Any) -> HttpResponse:
            return await async_whoami(request)

    for view in (Sync, Async):
        app = serve(requires_dpop(world.server())(view.as_view()))
        assert (await ask(app, world.fields("/notes"))).body == b"user123"
        assert (await ask(app)).status == 401
    for wrong in (Notes, "notes"):
        with pytest.raises(ConfigurationError, match="goes on a view that is a function"):
            requires_dpop(world.server())(wrong)  # type: ignore[type-var] # pyright: ignore[reportArgumentType]


async def test_without_required_the_session_user_stays(world: World, serve: Serve) -> None:
    app = serve(requires_dpop(world.server(), required=False)(whoami), SESSION_USER)
    assert (await ask(app)).body == b"session"
    assert (await ask(app, world.fields("/notes"))).body == b"user123"
    assert (await ask(app, [("Authorization", "DPoP x")])).status == 401


@pytest.mark.parametrize("view", [whoami, async_whoami])
@pytest.mark.parametrize("outer", [SESSION_USER, ASYNC_SESSION_USER])
async def test_behind_the_middleware_request_user_is_the_tokens(
    world: World, serve: Serve, view: Any, outer: str
) -> None:
    app = DPoPMiddleware(serve(view, outer, US), world.server(), required=False)
    assert (await ask(app, world.fields("/notes"))).body == b"user123"
    assert (await ask(app)).body == b"session"


async def test_the_decorator_behind_the_middleware_does_not_ask_again(world: World, serve: Serve) -> None:
    api = world.server(nonces=world.nonces()).with_policy(nonce="required")
    app = DPoPMiddleware(serve(requires_dpop(api, "notes:read")(whoami)), api)
    first = await ask(app, world.fields("/notes", scopes=["notes:read"]))
    (nonce,) = first.values("dpop-nonce")
    answer = await ask(app, world.fields("/notes", scopes=["notes:read"], nonce=nonce))
    assert (answer.status, world.store.asked) == (200, 1)
    assert len(answer.values("dpop-nonce")) <= 1


async def test_a_nonce_goes_on_refusals_and_responses_without_the_middleware(
    world: World, serve: Serve
) -> None:
    api = world.server(nonces=world.nonces())
    required = serve(requires_dpop(api.with_policy(nonce="required"))(whoami))
    refused = await ask(required, world.fields("/notes"))
    assert 'error="use_dpop_nonce"' in refused.challenges[0]
    (nonce,) = refused.values("dpop-nonce")
    assert (await ask(required, world.fields("/notes", nonce=nonce))).status == 200
    fallback = serve(requires_dpop(api.with_policy(nonce="fallback"))(whoami))
    answer = await ask(fallback, world.fields("/notes"))
    assert (answer.status, len(answer.values("dpop-nonce")), answer.values("cache-control")) == (
        200,
        1,
        ["no-store"],
    )


async def test_a_value_that_another_library_makes_a_response_of_is_returned_unchanged(
    world: World, serve: Serve
) -> None:
    """django-ninja does that, and then only the middleware can add a nonce."""

    def value(request: Any) -> Any:
        return {"notes_of": request.user.identity}

    api = world.server(nonces=world.nonces(), policy=DPoPPolicy(nonce="fallback"))

    async def library(request: Any) -> HttpResponse:
        return HttpResponse(json.dumps(await requires_dpop(api)(value)(request)).encode())

    app = DPoPMiddleware(serve(library), api)
    answer = await ask(app, world.fields("/notes"))
    assert (answer.status, answer.body) == (200, b'{"notes_of": "user123"}')
    assert len(answer.values("dpop-nonce")) == 1


async def test_no_cache_around_a_view_answers_who_only_has_the_token(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django's cache tells requests apart by Authorization, and a stolen token is the client's own."""
    configure()
    monkeypatch.setattr(settings, "CACHES", {"default": {"BACKEND": LOCAL_CACHE, "LOCATION": repr(world)}})
    app = serve(cache_page(60)(requires_dpop(world.server())(whoami)))
    fields = world.fields("/notes")
    accepted = await ask(app, fields)
    assert (accepted.status, accepted.values("Cache-Control")) == (200, ["private"])
    assert (await ask(app, fields[:1])).status == 401
    assert (await ask(app, fields)).status == 401, "a replay"


async def test_no_cache_keeps_what_another_library_makes_of_a_value(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def value(request: Any) -> Any:
        return request.user.identity

    protected = requires_dpop(world.server())(value)

    async def library(request: Any) -> HttpResponse:
        result: Any = await protected(request)
        return result if isinstance(result, HttpResponse) else HttpResponse(result.encode())

    configure()
    monkeypatch.setattr(settings, "CACHES", {"default": {"BACKEND": LOCAL_CACHE, "LOCATION": repr(world)}})
    app = serve(cache_page(60)(library))
    fields = world.fields("/notes")
    assert [(await ask(app, sent)).status for sent in (fields, fields[:1])] == [200, 401]


async def test_a_cache_around_an_optional_view_keeps_the_anonymous_page_apart(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    monkeypatch.setattr(settings, "CACHES", {"default": {"BACKEND": LOCAL_CACHE, "LOCATION": repr(world)}})
    app = serve(cache_page(60)(requires_dpop(world.server(), required=False)(whoami)), ANONYMOUS)
    for _ in range(2):
        anonymous = await ask(app)
        assert (anonymous.body, anonymous.values("Vary")) == (b"AnonymousUser", ["Authorization"])
    assert (await ask(app, world.fields("/notes"))).body == b"user123"


@pytest.mark.parametrize("told", ["public, max-age=60", "no-store"])
async def test_what_a_view_tells_caches_stays(world: World, serve: Serve, told: str) -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse(b"", headers={"Cache-Control": told})

    answer = await ask(serve(requires_dpop(world.server())(view)), world.fields("/notes"))
    assert answer.values("Cache-Control") == [told]


async def test_django_ninja_takes_no_refusal_for_a_success(world: World) -> None:
    """It calls a decorated `auth=` for a value, and any true value is a success."""
    ninja = ModuleType("ninja.operation")
    exec("def passes(result):\n    return True if result else False", vars(ninja))

    @requires_dpop(world.server())
    def caller(request: Any) -> str:
        return str(request.user)

    def asked(fields: Fields | None = None) -> Any:
        request: Any = RequestFactory().get("/notes")
        request.scope = scope_of("/notes", fields)
        return caller(request)

    configure()
    refused = await asked()
    assert (refused.status_code, ninja.passes(refused), bool(refused)) == (401, False, True)
    assert ninja.passes(await asked(world.fields("/notes"))) is True


async def test_a_refusal_leaves_nothing_to_the_garbage_collector_where_it_was_asked_whether_it_is_true(
    world: World,
) -> None:
    """It looks at the frame of who asks, which has the request and the token."""
    configure()
    request: Any = RequestFactory().get("/notes")
    request.scope = scope_of("/notes")
    protected: Any = requires_dpop(world.server())(whoami)
    gc.collect()
    gc.disable()
    try:
        refused = await protected(request)
        assert refused
        gone = weakref.ref(refused)
        del refused
        assert gone() is None
    finally:
        gc.enable()


async def test_several_challenges_stand_in_one_line(world: World, serve: Serve) -> None:
    app = serve(requires_dpop(world.server().with_policy(accept_bearer=True))(whoami))
    (line,) = (await ask(app)).challenges
    assert line.startswith("Bearer, DPoP algs=")


async def test_a_post_needs_no_csrf_token(world: World, serve: Serve) -> None:
    protected = serve(requires_dpop(world.server())(whoami), SESSION_USER, CSRF)
    fields = world.fields("/notes", method="POST")
    assert (await ask(protected, fields, method="POST")).body == b"user123"
    optional = serve(requires_dpop(world.server(), required=False)(whoami), SESSION_USER, CSRF)
    assert (await ask(optional, method="POST")).status == 403, "the session may be another page's to use"


@pytest.mark.parametrize("middleware", [(CSRF, US), (US, CSRF)])
@pytest.mark.parametrize("view", [whoami, async_whoami, csrf_protect(whoami)])
async def test_behind_the_middleware_a_post_with_a_proof_needs_no_csrf_token(
    world: World, serve: Serve, view: Any, middleware: tuple[str, str]
) -> None:
    app = DPoPMiddleware(serve(view, SESSION_USER, *middleware), world.server(), required=False)
    proved = await ask(app, world.fields("/notes", method="POST"), method="POST")
    assert (proved.status, proved.body) == (200, b"user123")
    assert (await ask(app, method="POST")).status == 403, "the session may be another page's to use"


@pytest.mark.parametrize("view", [whoami, async_whoami, open_to_all])
async def test_a_decorated_view_needs_no_login(world: World, serve: Serve, view: Any) -> None:
    app = serve(requires_dpop(world.server())(view), ANONYMOUS, LOGIN_REQUIRED)
    assert (await ask(app, world.fields("/notes"))).body == b"user123"
    assert (await ask(app)).status == 401


@pytest.mark.parametrize(
    ("view", "status"), [(whoami, 302), (open_to_all, 200), (login_required(whoami), 302)]
)
async def test_without_required_a_view_needs_the_login_that_it_needs_without_us(
    world: World, serve: Serve, view: Any, status: int
) -> None:
    app = serve(requires_dpop(world.server(), required=False)(view), ANONYMOUS, LOGIN_REQUIRED)
    assert (await ask(app)).status == status


async def test_behind_the_middleware_a_proof_is_a_login(world: World, serve: Serve) -> None:
    app = DPoPMiddleware(serve(whoami, ANONYMOUS, US, LOGIN_REQUIRED), world.server())
    assert (await ask(app, world.fields("/notes"))).body == b"user123"


@pytest.mark.parametrize("exempt", [None, "inside", "outside"])
@pytest.mark.parametrize("decorators", [1, 2])
async def test_a_sync_view_has_the_transaction_that_atomic_requests_asks_for(
    world: World,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    decorators: int,
    exempt: str | None,
) -> None:
    configure()
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "db", "ATOMIC_REQUESTS": True}
    settings = connections.configure_settings({"default": {}, "notes": database})
    monkeypatch.setattr(connections, "settings", settings)
    without = transaction.non_atomic_requests(using="notes")

    def in_transaction(request: Any) -> HttpResponse:
        return HttpResponse(str(connections["notes"].in_atomic_block).encode())

    view: Any = without(in_transaction) if exempt == "inside" else in_transaction
    api = world.server()
    for _ in range(decorators):
        view = requires_dpop(api)(view)
    answer = await ask(serve(without(view) if exempt == "outside" else view), world.fields("/notes"))
    assert (answer.status, answer.body) == (200, str(exempt is None).encode())


async def test_an_async_view_can_have_no_transaction(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    settings = connections.configure_settings({"default": {"ATOMIC_REQUESTS": True}})
    monkeypatch.setattr(connections, "settings", settings)
    app = serve(requires_dpop(world.server())(async_whoami))
    assert (await ask(app, world.fields("/notes"))).status == 500  # as without the decorator


class AsyncCallable:
    async def __call__(self, request: Any) -> HttpResponse:
        return await async_whoami(request)


def async_views(world: World) -> dict[str, Any]:
    """Return protected views that are async although what is decorated isn't a coroutine function."""
    protect = requires_dpop(world.server())

    class AsyncNotes(View):  # type: ignore[misc] # Django has no types
        async def get(self, request: Any) -> HttpResponse:
            return await async_whoami(request)

    decorated: Any = method_decorator(protect, name="dispatch")(AsyncNotes)
    return {
        "class": decorated.as_view(),
        "object": protect(AsyncCallable()),
    }


@pytest.mark.parametrize("kind", ["class", "object"])
async def test_what_is_called_may_be_async_without_being_a_coroutine_function(
    world: World, serve: Serve, kind: str
) -> None:
    app = serve(async_views(world)[kind])
    assert (await ask(app, world.fields("/notes"))).body == b"user123"
    assert (await ask(app)).status == 401


@pytest.mark.parametrize("kind", ["class", "object"])
async def test_it_can_have_no_transaction_either(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    configure()
    settings = connections.configure_settings({"default": {"ATOMIC_REQUESTS": True}})
    monkeypatch.setattr(connections, "settings", settings)
    monkeypatch.setattr(transaction, "atomic", lambda using: nullcontext())
    app = serve(async_views(world)[kind])
    assert (await ask(app, world.fields("/notes"))).status == 500  # as without the decorator


def test_under_wsgi_the_middleware_changes_nothing() -> None:
    configure()
    request: Any = RequestFactory().get("/notes")
    request.user = "session"
    middleware = dpop_user(whoami)
    assert (middleware(request).content, request.user) == (b"session", "session")


def test_under_wsgi_it_says_so(world: World) -> None:
    configure()
    request = RequestFactory().get("/notes")
    with pytest.raises(ConfigurationError, match="needs Django under ASGI"):
        async_to_sync(requires_dpop(world.server())(async_whoami))(request)


async def test_on_a_method_it_says_what_to_do(world: World) -> None:
    class Notes(View):  # type: ignore[misc] # Django has no types
        @requires_dpop(world.server())
        def get(self, request: Any) -> HttpResponse:
            raise AssertionError

    notes: Any = Notes()
    with pytest.raises(ConfigurationError, match=r"a Notes is no request.*method_decorator"):
        await notes.get(None)


async def test_the_user_has_what_django_asks_for(world: World, serve: Serve) -> None:
    seen: list[TokenUser] = []

    async def view(request: Any) -> HttpResponse:
        seen.append(request.user)
        return HttpResponse(b"")

    await ask(serve(requires_dpop(world.server())(view)), world.fields("/notes"))
    (user,) = seen
    assert (user.is_authenticated, user.is_anonymous, user.is_active) == (True, False, True)
    assert (user.is_staff, user.is_superuser, user.has_perm("notes.view")) == (False, False, False)
    assert user.pk is None
    assert (user.username, user.get_username(), str(user)) == ("user123", "user123", "user123")


@pytest.mark.parametrize("view", [whoami, async_whoami])
async def test_a_view_that_needs_a_permission_is_closed_to_a_token(
    world: World, serve: Serve, view: Any
) -> None:
    asks = permission_required("notes.view", raise_exception=True)(view)
    app = serve(requires_dpop(world.server())(asks))
    assert (await ask(app, world.fields("/notes"))).status == 403
    asks_nothing = permission_required(())(view)
    app = serve(requires_dpop(world.server())(asks_nothing))
    assert (await ask(app, world.fields("/notes"))).status == 200


async def test_a_template_sees_no_permissions(world: World, serve: Serve) -> None:
    seen: list[object] = []

    async def view(request: Any) -> HttpResponse:
        perms = PermWrapper(request.user)
        seen.extend([bool(perms["notes"]), bool(perms["notes"]["view"])])
        seen.extend(
            [await request.user.ahas_module_perms("notes"), await request.user.ahas_perm("notes.view")]
        )
        return HttpResponse(b"")

    await ask(serve(requires_dpop(world.server())(view)), world.fields("/notes"))
    assert seen == [False] * 4


def test_only_a_resource_server_protects() -> None:
    with pytest.raises(ConfigurationError, match="takes a ResourceServer first"):
        requires_dpop("notes:read")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_without_the_extra_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django.http", None)
    monkeypatch.delitem(sys.modules, "dpop_middleware.django")
    with pytest.raises(ImportError, match=r"pip install '\.\[django\]'"):
        importlib.import_module("dpop_middleware.django")
