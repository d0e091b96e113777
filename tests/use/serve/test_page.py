"""The page, tried in a browser."""

import base64
from urllib.parse import urlsplit

import pytest
from fixtures_images import jpeg

pytest.importorskip('fastapi')
from fixtures_serve import Plain, serving
from use.serve import chromium

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not chromium.PROGRAM, reason='no Chromium')]

# What a person's hand would do, with a file made of base64.
HAND = '''(kind, name, data) => {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0)), transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: 'image/jpeg'}));
  document.dispatchEvent(kind === 'drop' ? new DragEvent(kind, {dataTransfer: transfer, cancelable: true})
                                         : new ClipboardEvent(kind, {clipboardData: transfer}));
}'''


@pytest.fixture
def browser(tmp_path, explained):
    models = {'one': Plain(), 'zwölf <b>': Plain()}
    with serving(models, max_pixels=10_000) as client, chromium.Browser(tmp_path / 'profile') as browser:
        browser.call('Page.navigate', url=f'http://127.0.0.1:{client.port}/')
        browser.until('document.querySelectorAll("#models input").length === 2')
        yield browser


def give(browser, kind, name, image):
    browser.run(f'({HAND})("{kind}", "{name}", "{base64.b64encode(image).decode()}")')


def test_images_that_are_dropped_pasted_or_chosen_are_answered_by_each_model(browser, tmp_path):
    image = jpeg(0, 60, 80)
    (tmp_path / 'chosen.jpg').write_bytes(image)
    give(browser, 'drop', '<i>dropped.jpg', image)
    give(browser, 'paste', 'pasted.jpg', image)
    node = browser.call('DOM.querySelector', nodeId=browser.call('DOM.getDocument')['root']['nodeId'], selector='#file')
    browser.call('DOM.setFileInputFiles', nodeId=node['nodeId'], files=[str(tmp_path / 'chosen.jpg')])
    browser.until('document.querySelectorAll("meter").length === 12 && document.getElementById("status").textContent '
                  '=== "Done."')
    assert sorted(browser.run('[...document.querySelectorAll("article > header span")].map(x => x.textContent)')) == [
        '<i>dropped.jpg', 'chosen.jpg', 'pasted.jpg']
    assert browser.run('[...document.querySelectorAll("article:first-child h2")].map(x => x.textContent)') == [
        'one', 'zwölf <b>']
    assert sorted(browser.run('[...document.querySelectorAll("article:first-child li span:first-child")]'
                              '.slice(0, 2).map(x => x.textContent)')) == ['other', 'red']
    assert browser.run('[...document.images].every(x => x.complete && x.naturalWidth) && document.images.length') == 12
    assert browser.run('[...document.querySelectorAll("meter, button, img")].every('
                       'x => x.getAttribute("aria-label") || x.alt || x.textContent)')
    browser.run('document.querySelector("article button").click()')
    assert browser.run('document.querySelectorAll("article").length') == 2
    assert browser.run('document.activeElement.id') == 'file'
    asked = {urlsplit(event['params']['request']['url']).hostname for event in browser.events
             if event.get('method') == 'Network.requestWillBeSent'}
    assert asked == {None, '127.0.0.1'}  # data: and blob: have no host; nothing comes from elsewhere
    assert not [event for event in browser.events if event.get('method') in ('Log.entryAdded',
                                                                             'Runtime.exceptionThrown')]


def test_a_reason_stands_where_an_answer_would(browser):
    browser.run('document.querySelector("#models input").click()')  # the first model is not asked
    give(browser, 'drop', 'large.jpg', jpeg(0, 101, 100))
    give(browser, 'drop', 'none.jpg', b'no image')
    browser.until('document.querySelectorAll("[role=alert]").length === 2')
    said = sorted(browser.run('[...document.querySelectorAll("[role=alert]")].map(x => x.textContent)'))
    assert 'no known image format' in said[0] and 'limit of 10000' in said[1]
    browser.run('document.querySelector("#models input:checked").click()')
    give(browser, 'drop', 'x.jpg', jpeg())
    browser.until('document.getElementById("status").textContent === "Choose a model first."')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_a_telephone_in_light_and_dark(browser, scheme):
    browser.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])
    browser.call('Emulation.setDeviceMetricsOverride', width=360, height=700, deviceScaleFactor=1, mobile=True)
    give(browser, 'drop', 'x' * 200 + '.jpg', jpeg())
    browser.until('document.querySelectorAll("meter").length === 4')
    assert browser.run('document.documentElement.scrollWidth') == 360
    colour = browser.run('getComputedStyle(document.body).backgroundColor')
    assert colour == {'light': 'rgb(246, 247, 249)', 'dark': 'rgb(20, 22, 26)'}[scheme]
    assert browser.picture()[:4] == b'\x89PNG'
