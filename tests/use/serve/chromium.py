"""A browser without a window, driven by the DevTools protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
import sys

PROGRAM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)

# The browser reads 3 and writes 4; a fork that does so would have JAX's threads in it.
_STARTER = '''import os, sys
ends = [os.dup(int(end)) for end in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
    os.set_inheritable(number, True)
os.execv(sys.argv[3], sys.argv[3:])'''


class Browser:
    """One page of it. Closed on leaving."""

    def __init__(self, folder, width=1100, height=900):
        (theirs, self._out), (self._in, ours) = os.pipe(), os.pipe()
        self._ends = theirs, ours
        self._process = subprocess.Popen(
            [sys.executable, '-c', _STARTER, str(theirs), str(ours), PROGRAM, '--headless=new', '--no-sandbox',
             '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', f'--user-data-dir={folder}',
             f'--window-size={width},{height}', '--remote-debugging-pipe'],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs, ours))
        self._reader, self._number, self._session, self.events = os.fdopen(self._in, 'rb'), 0, None, []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network', 'DOM'):
            self.call(f'{domain}.enable')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._reader.close()
        for end in (self._out, *self._ends):
            os.close(end)

    def call(self, method, **params):
        """What a method of the protocol gives."""
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': params}
        message |= {'sessionId': self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']
            self.events.append(answer)

    def run(self, script):
        """The value of a script in the page, a promise's once it is kept."""
        found = self.call('Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in found, found
        return found['result'].get('value')

    def until(self, condition):
        """Waits until a script's value is true."""
        self.run(f'''new Promise((done, fail) => {{
            const late = setTimeout(() => fail(new Error(document.body.innerText)), 60000);
            const look = () => ({condition}) ? (clearTimeout(late), done()) : setTimeout(look, 20);
            look(); }})''')

    def picture(self):
        """A PNG of the whole page."""
        found = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=True)
        return base64.b64decode(found['data'])

    def _read(self):
        message = bytearray()
        while (byte := self._reader.read(1)) != b'\0':
            assert byte, 'the browser ended'
            message += byte
        return json.loads(message)
