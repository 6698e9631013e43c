"""What every screen of the console is held to: hosts, origins, bodies, people and their roles."""

import asyncio
import re

import pytest
from starlette.datastructures import Headers
from starlette.routing import Mount
from starlette.testclient import TestClient

from murmura.console.assembly import Console
from murmura.console.server import serve
from murmura.console.web.application import make_application, make_routes
from murmura.console.web.pages import Pages
from murmura.console.web.people import Refused, Role, find_person
from murmura.console.web.screens import GuardedRoute, Screen, do, go_to, person_of, show
from murmura.console.web.security import BoundedBodies
from murmura.runtime.settings.console import ConsoleSettings

PROXY = {"trusted_proxies": ["10.0.0.0/8"]}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def forwarded(user: str, groups: str = "") -> Headers:
    return Headers(raw=[(b"x-forwarded-user", user.encode()), (b"x-forwarded-groups", groups.encode())])


def client(settings: ConsoleSettings, *, address: str = "127.0.0.1", **headers: str) -> TestClient:
    """A console of one screen, with a route for each role."""

    async def look(request):
        return pages.render(request, "refused.html", title="Look", message=person_of(request).name)

    async def write(request):
        form = await request.form()
        return go_to(f"/done/{len(form['text'])}")

    async def fail(request):
        raise RuntimeError("secret")

    routes = [show("/", look), show("/fails", fail)]
    routes += [do(f"/{role.name.lower()}", write, role=role) for role in Role]
    screens = [Screen("Look", "/", "l", routes)]
    pages = Pages(screens)
    return TestClient(
        make_application(screens, pages, settings),
        base_url="http://127.0.0.1:9480",
        client=(address, 50_000),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        follow_redirects=False,
        raise_server_exceptions=False,
    )


def test_every_route_names_a_role_and_what_writes_needs_more_than_reading(make_console):
    console = make_console()
    for route in make_routes(console.screens):
        if isinstance(route, Mount):
            assert route.path == "/static"
            continue
        assert isinstance(route, GuardedRoute)
        writes = route.methods - {"GET", "HEAD"}
        assert not writes or route.role > Role.READER, route.path


def test_no_reader_may_send_anything_anywhere(make_console, browse):
    reader = browse(read_only=True)
    for screen in make_console().screens:
        for route in screen.routes:
            if "POST" in route.methods:
                assert reader.post(route.path).status_code == 403, route.path


@pytest.mark.parametrize("path", ["/", "/none", "/fails", "/static/console.css"])
def test_every_answer_carries_the_headers_of_safety(path):
    answer = client(ConsoleSettings()).get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "secret" not in answer.text


def test_a_file_of_the_console_is_kept_by_its_digest_and_nothing_else_is():
    browser = client(ConsoleSettings())
    address = re.search("/static/console[.]css[?]v=[0-9a-f]{16}", browser.get("/").text)[0]
    assert "immutable" in browser.get(address).headers["cache-control"]
    for other in ("/static/console.css", address[:-1], "/"):
        assert browser.get(other).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9480", 200),
        ("localhost", 200),
        ("[::1]:9480", 200),
        ("desk.example", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
def test_a_host_that_is_not_listed_is_refused(host, status):
    assert client(ConsoleSettings(hosts=("desk.example",)), host=host).get("/").status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9480"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://127.0.0.1:9480"}, 303),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_only_pages_of_the_console_may_write(headers, status):
    answer = client(ConsoleSettings()).post("/operator", data={"text": "abc"}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("site", "dest", "status"),
    [
        ("cross-site", "image", 403),
        ("same-site", "iframe", 403),
        ("cross-site", "document", 200),
        ("same-origin", "empty", 200),
        ("none", "document", 200),
    ],
)
def test_another_site_may_link_to_a_page_and_not_use_it(site, dest, status):
    headers = {"sec-fetch-site": site, "sec-fetch-dest": dest}
    assert client(ConsoleSettings()).get("/", headers=headers).status_code == status


def test_a_body_is_bounded_whether_its_length_is_told_or_not():
    browser = client(ConsoleSettings(max_body_bytes=1000), sec_fetch_site="same-origin")
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert browser.post("/operator", content=b"text=" + 900 * b"a", headers=form).headers["location"] == "/done/900"
    assert browser.post("/operator", content=b"text=" + 1000 * b"a", headers=form).status_code == 413
    chunks = (b"text=" + 99 * b"a" for _ in range(20))
    assert browser.post("/operator", content=chunks, headers=form).status_code == 413


async def test_a_body_that_breaks_off_is_not_acted_on():
    parts = [{"type": "http.request", "body": b"label=refund&d", "more_body": True}, {"type": "http.disconnect"}]
    acted = []

    async def act(*asgi):
        acted.append(asgi)

    async def receive():
        return parts.pop(0)

    with pytest.raises(Refused) as refused:
        await BoundedBodies(act, 1000)({"type": "http", "method": "POST", "headers": []}, receive, None)
    assert (refused.value.status, acted) == (400, [])


async def test_connections_are_bounded_also_those_without_a_request(monkeypatch, make_console):
    monkeypatch.setattr("murmura.console.server.MAX_CONNECTIONS", 2)
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    console = Console(make_console().application, [], None, [])
    task = asyncio.create_task(serve(console, ("127.0.0.1", 0), stop=stop, ready=url.set_result))
    port = int((await url).rpartition(":")[2])

    async def ask(reader, writer) -> bytes:
        writer.write(b"GET /static/console.css HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return await reader.readline()

    connections = [await asyncio.open_connection("127.0.0.1", port)]
    assert b" 200 " in await ask(*connections[0])
    connections += [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    assert b" 503 " in await ask(*connections[-1])
    for _, writer in connections:
        writer.close()
    stop.set()
    await task


def test_on_this_machine_its_user_does_everything_and_headers_say_nothing(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ann")
    headers = forwarded("eve", "operator")
    person = find_person("127.0.0.1", headers, ConsoleSettings())
    assert (person.name, person.role) == ("ann", Role.OPERATOR)
    assert find_person("127.0.0.1", headers, ConsoleSettings(read_only=True)).role is Role.READER


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ("", Role.READER),
        ("annotator", Role.ANNOTATOR),
        ("staff, leads", Role.OPERATOR),
        ("annotator,operator", Role.OPERATOR),
        ("Operator,root", Role.READER),
    ],
)
def test_behind_a_proxy_the_highest_role_of_the_header_counts(groups, role):
    settings = ConsoleSettings(**PROXY, roles={"leads": "operator"})
    person = find_person("10.1.2.3", forwarded("ann", groups), settings)
    assert (person.name, person.role) == ("ann", role)


@pytest.mark.parametrize(
    ("address", "user", "status"),
    [
        ("192.168.0.1", "ann", 403),
        ("not an address", "ann", 403),
        ("10.1.2.3", "", 401),
        ("10.1.2.3", "a" * 201, 400),
        ("10.1.2.3", "ann\x1b[2J", 400),
        ("10.1.2.3", "ann\u202e", 400),
    ],
)
def test_behind_a_proxy_a_request_without_a_name_is_refused(address, user, status):
    with pytest.raises(Refused) as refused:
        find_person(address, forwarded(user), ConsoleSettings(**PROXY))
    assert refused.value.status == status


def test_a_name_is_read_as_utf_8_and_other_bytes_are_refused():
    settings = ConsoleSettings(**PROXY)
    assert find_person("10.1.2.3", forwarded("Zoë"), settings).name == "Zoë"
    with pytest.raises(Refused, match="expected UTF-8"):
        find_person("10.1.2.3", Headers({"X-Forwarded-User": "Zoë"}), settings)


@pytest.mark.parametrize("name", [b"x-forwarded-user", b"x-forwarded-groups"])
def test_a_header_that_came_twice_is_refused_since_one_may_be_the_browsers(name):
    headers = Headers(raw=[*forwarded("ann", "annotator").raw, (name, b"operator")])
    with pytest.raises(Refused, match="came 2 times"):
        find_person("10.1.2.3", headers, ConsoleSettings(**PROXY))


def test_a_name_is_shown_as_text():
    answer = client(ConsoleSettings(**PROXY), address="10.1.1.1", X_Forwarded_User="<script>alert(1)</script>").get("/")
    assert "&lt;script&gt;alert(1)" in answer.text
    assert "<script>alert" not in answer.text
