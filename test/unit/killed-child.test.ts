/** The harness of the kill rounds: only its own kill counts as one. */

import fs from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { KilledChild } from '../support/killed-child.js';
import { tempFolder } from '../support/temp.js';

void t.test('a child that ends by itself, however, is no child that was killed', async (t) => {
  const folder = tempFolder(t);
  const script = (name: string, code: string): string => {
    const file = path.join(folder, `${name}.mjs`);
    fs.writeFileSync(file, code);
    return file;
  };
  const child = new KilledChild(script('runs', "console.log('one'); console.log('two'); setInterval(() => {}, 1000);"), []);
  await child.hasSaid('two', 'one');
  await child.kill();

  const before = new KilledChild(script('exits', "console.log('one'); process.exitCode = 3;"), []);
  await t.rejects(before.hasSaid('one', 'two'), { message: /said one; waited for one,two, and met exit code 3/ });
  await t.rejects(before.kill(), { message: /ended by itself: exit code 3/ });

  for (const signal of ['SIGTERM', 'SIGKILL']) {
    const own = new KilledChild(
      script(signal, `console.log('one'); process.kill(process.pid, '${signal}'); setInterval(() => {}, 1000);`),
      [],
    );
    await t.rejects(own.hasSaid('never'), { message: new RegExp(`and met ${signal}`) });
    await t.rejects(own.kill(), { message: new RegExp(`ended by itself: ${signal}`) });
  }
});
