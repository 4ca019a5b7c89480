/** Publish and subscribe: who listens to what. Messages are not kept; they go to who listens at that moment. */

import { globMatches } from './arguments.js';
import { ReplyWriter } from './reply-writer.js';
import type { Session } from './session.js';

const MESSAGE_BYTES = 256;

export class Channels {
  readonly #channels = new Map<string, Set<Session>>();
  readonly #patterns = new Map<string, Set<Session>>();

  subscribe(session: Session, channel: string): void {
    session.channels.add(channel);
    add(this.#channels, channel, session);
  }

  unsubscribe(session: Session, channel: string): void {
    session.channels.delete(channel);
    remove(this.#channels, channel, session);
  }

  subscribePattern(session: Session, pattern: string): void {
    session.patterns.add(pattern);
    add(this.#patterns, pattern, session);
  }

  unsubscribePattern(session: Session, pattern: string): void {
    session.patterns.delete(pattern);
    remove(this.#patterns, pattern, session);
  }

  /** Ends all subscriptions of a session. */
  forget(session: Session): void {
    for (const channel of [...session.channels]) this.unsubscribe(session, channel);
    for (const pattern of [...session.patterns]) this.unsubscribePattern(session, pattern);
  }

  /** @param channel and message are bytes in latin1 and as they are @returns number of receivers */
  publish(channel: string, message: Buffer): number {
    let receivers = 0;
    const direct = this.#channels.get(channel);
    if (direct !== undefined) receivers += deliver(direct, ['message', channel], message);
    const bytes = Buffer.from(channel, 'latin1');
    for (const [pattern, sessions] of this.#patterns) {
      if (globMatches(Buffer.from(pattern, 'latin1'), bytes)) receivers += deliver(sessions, ['pmessage', pattern, channel], message);
    }
    return receivers;
  }

  /** Channels somebody listens to. */
  names(): string[] {
    return [...this.#channels.keys()];
  }

  listeners(channel: string): number {
    return this.#channels.get(channel)?.size ?? 0;
  }

  patterns(): Iterable<string> {
    return this.#patterns.keys();
  }

  patternListeners(pattern: string): number {
    return this.#patterns.get(pattern)?.size ?? 0;
  }

  get patternCount(): number {
    return this.#patterns.size;
  }
}

/** Sends a message in the form that each receiver's protocol wants; each form is made once. */
function deliver(sessions: Set<Session>, words: readonly string[], message: Buffer): number {
  const forms = new Map<number, Buffer>();
  const count = sessions.size;
  for (const session of sessions) {
    let form = forms.get(session.protocol);
    if (form === undefined) {
      const writer = new ReplyWriter(MESSAGE_BYTES + message.length);
      writer.protocol = session.protocol;
      writer.push(words.length + 1);
      for (const word of words) writer.bulk(Buffer.from(word, 'latin1'));
      writer.bulk(message);
      form = writer.take();
      forms.set(session.protocol, form);
    }
    session.outlet.deliver(form);
  }
  return count;
}

function add(map: Map<string, Set<Session>>, name: string, session: Session): void {
  const sessions = map.get(name);
  if (sessions === undefined) map.set(name, new Set([session]));
  else sessions.add(session);
}

function remove(map: Map<string, Set<Session>>, name: string, session: Session): void {
  const sessions = map.get(name);
  if (sessions?.delete(session) === true && sessions.size === 0) map.delete(name);
}
