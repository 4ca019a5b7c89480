/** A thread of the quickstart: attaches to the main thread's store, writes its share, and reads everything. */

import { parentPort, workerData } from 'node:worker_threads';
import { attach } from '../src/index.js';
import {
  loadDocuments,
  readDocuments,
  writeDocuments,
  type WorkerInput,
  type WorkerReply,
  type WorkerRequest,
} from './quickstart-documents.js';

const port = parentPort;
if (port === null) throw new Error('quickstart-worker.js is started by quickstart.js');
const reply = (message: WorkerReply): void => port.postMessage(message);

const { handle, root, share, all } = workerData as WorkerInput;
const db = await attach(handle);
const documents = loadDocuments(root, share);

async function answer(request: WorkerRequest): Promise<void> {
  if (request === 'write') {
    reply({ type: 'written', ...(await writeDocuments(db, documents)) });
  } else if (request === 'read') {
    reply({ type: 'read', ...readDocuments(db, all) });
  } else {
    // Detaches this thread only: the store stays open for the others.
    await db.close();
    port?.close();
  }
}

// What fails here ends this thread, and the main thread gets the error.
port.on('message', (request: WorkerRequest) => void answer(request));
reply({ type: 'ready' });
