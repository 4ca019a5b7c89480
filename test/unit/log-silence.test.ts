/** Who waits for what the log's thread, or the owner's, has to do is told when that has ended without a word. */

import t from 'tap';
import { Worker } from 'node:worker_threads';
import { askForCheckpoint } from '../../src/engine/checkpoint-request.js';
import { LogSilence } from '../../src/engine/log-silence.js';
import { attach, type StoreHandle } from '../../src/index.js';
import { Control } from '../../src/memory/control.js';
import { tempFolder } from '../support/temp.js';

const SILENCE_MS = 4000;

/** A thread that owns a store and does nothing else. */
async function ownerIn(folder: string): Promise<{ owner: Worker; handle: StoreHandle }> {
  const code = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(async ({ open }) => {
      const db = await open(workerData.folder);
      parentPort.postMessage(db.handle);
      parentPort.on('message', () => undefined);
    });`;
  const module = new URL('../../src/index.js', import.meta.url).href;
  const owner = new Worker(code, { eval: true, workerData: { module, folder } });
  const handle = await new Promise<StoreHandle>((resolve, reject) => owner.once('message', resolve).once('error', reject));
  return { owner, handle };
}

void t.test('a checkpoint that an attached thread asks for after the owner has died rejects', async (t) => {
  const { owner, handle } = await ownerIn(tempFolder(t));
  const db = await attach(handle);
  await db.put('a', 1);
  const control = new Control(handle.control);
  t.type(await askForCheckpoint(control, new LogSilence(control, SILENCE_MS)), 'number', 'the owner lives');
  await owner.terminate();
  await t.rejects(askForCheckpoint(control, new LogSilence(control, SILENCE_MS)), {
    code: 'FV_READONLY',
    cause: { code: 'FV_IO', message: /silent for 4000 ms/ },
  });
  t.equal(db.status, 'readonly');
  t.equal(db.get('a'), 1);
  await db.close();
});

void t.test('a log that lives is not taken for dead, however long nobody has looked', async (t) => {
  const { owner, handle } = await ownerIn(tempFolder(t));
  const control = new Control(handle.control);
  const silence = new LogSilence(control, SILENCE_MS);
  for (const until = performance.now() + 2 * SILENCE_MS; performance.now() < until;) {
    silence.look();
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  t.equal(control.failure, undefined);
  await owner.terminate();
  // Somebody begins to wait long after the last look.
  await new Promise((resolve) => setTimeout(resolve, SILENCE_MS + 500));
  silence.begin();
  silence.look();
  t.equal(control.failure, undefined, 'that is not silence yet');
  await new Promise((resolve) => setTimeout(resolve, SILENCE_MS + 500));
  silence.look();
  t.match(control.failure, { code: 'FV_IO' });
});
