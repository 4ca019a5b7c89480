/** What clients say of themselves and ask of their connection. */

import { numberOf, syntaxError, wordOf } from '../arguments.js';
import { NO_KEYS, type Command } from '../command.js';
import { CommandError } from '../protocol-error.js';
import type { Session } from '../session.js';
import { replyHelp, unknownSubcommand } from '../subcommands.js';
import { latin1 } from '../values.js';

const WRONG_PASSWORD = 'WRONGPASS invalid username-password pair or user is disabled.';
const TOO_MANY_WRONG = 'ERR too many wrong passwords came from this host; try again later';
const DEFAULT_USER = 'default';

/** Says the password. Who is wrong waits, and so do the commands behind. */
async function authenticate(session: Session, user: string, password: Buffer): Promise<void> {
  // There is one user: another name is as wrong as a wrong password, and takes as long.
  const said = user === DEFAULT_USER ? password : Buffer.concat([password, Buffer.from(`\0${user}`)]);
  const verdict = await session.server.passwords.check(session.outlet.address, said);
  if (verdict !== 'right') {
    session.server.counts.refusedPasswords++;
    throw new CommandError(verdict === 'busy' ? TOO_MANY_WRONG : WRONG_PASSWORD);
  }
  session.isAuthenticated = true;
  session.server.trust(session);
}

async function auth(session: Session, args: Buffer[]): Promise<void> {
  if (args.length > 3) throw syntaxError();
  if (!session.server.needsPassword && args.length === 2)
    throw new CommandError(
      'ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?',
    );
  session.replyApart();
  if (session.server.needsPassword)
    await authenticate(session, args.length === 3 ? args[1].toString() : DEFAULT_USER, args[args.length - 1]);
  else if (args[1].toString() !== DEFAULT_USER) throw new CommandError(WRONG_PASSWORD);
  session.reply.ok();
}

function hello(session: Session, args: Buffer[]): Promise<void> | undefined {
  let protocol = session.protocol;
  let login: [user: string, password: Buffer] | undefined;
  let name: string | undefined;
  if (args.length > 1) {
    protocol = numberOf(args[1], 'ERR Protocol version is not an integer or out of range');
    if (protocol !== 2 && protocol !== 3) throw new CommandError('NOPROTO unsupported protocol version');
    for (let i = 2; i < args.length; i++) {
      const word = wordOf(args[i]);
      if (word === 'AUTH' && i + 2 < args.length) {
        login = [args[i + 1].toString(), args[i + 2]];
        i += 2;
      } else if (word === 'SETNAME' && i + 1 < args.length) {
        name = checkedName(args[++i]);
      } else {
        throw new CommandError(`ERR Syntax error in HELLO option '${args[i].toString('latin1', 0, 128)}'`);
      }
    }
  }
  if (login !== undefined && !session.server.needsPassword && login[0] !== DEFAULT_USER) throw new CommandError(WRONG_PASSWORD);
  if (login === undefined || !session.server.needsPassword) {
    greet(session, protocol, name);
    return undefined;
  }
  if (session.afterCommit !== undefined) throw new CommandError('ERR the password cannot be said inside a transaction');
  session.replyApart();
  return authenticate(session, login[0], login[1]).then(() => greet(session, protocol, name));
}

function greet(session: Session, protocol: number, name: string | undefined): void {
  if (!session.isAuthenticated)
    throw new CommandError(
      'NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time',
    );
  if (name !== undefined) session.name = name;
  session.setProtocol(protocol);
  const { reply, server } = session;
  const facts: [string, string | number][] = [
    ['server', 'redis'],
    ['version', server.redisVersion],
    ['proto', protocol],
    ['id', session.id],
    ['mode', 'standalone'],
    ['role', server.leader === undefined ? 'master' : 'replica'],
  ];
  reply.map(facts.length + 1);
  for (const [fact, value] of facts) {
    reply.text(fact);
    if (typeof value === 'number') reply.integer(value);
    else reply.text(value);
  }
  reply.text('modules');
  reply.array(0);
}

function checkedName(argument: Buffer): string {
  const name = latin1(argument);
  if (!/^[!-~]*$/.test(name)) throw new CommandError('ERR Client names cannot contain spaces, newlines or special characters.');
  return name;
}

function ping(session: Session, args: Buffer[]): void {
  if (args.length > 2) throw new CommandError("ERR wrong number of arguments for 'ping' command");
  const { reply } = session;
  if (session.protocol === 2 && session.isSubscribed) {
    reply.array(2);
    reply.text('pong');
    reply.bulk(args[1] ?? Buffer.alloc(0));
  } else if (args.length === 2) {
    reply.bulk(args[1]);
  } else {
    reply.status('PONG');
  }
}

function quit(session: Session): void {
  session.reply.ok();
  session.outlet.end();
}

function reset(session: Session): void {
  session.multi = undefined;
  session.unwatch();
  session.server.channels.forget(session);
  session.setProtocol(2);
  session.database = 0;
  session.name = '';
  session.replyOn();
  session.isNextReplySkipped = false;
  session.isAuthenticated = !session.server.needsPassword;
  session.server.trust(session);
  session.reply.status('RESET');
}

/** One line of CLIENT LIST. */
function describe(session: Session): string {
  const now = Date.now();
  const multi = session.multi === undefined ? -1 : session.multi.commands.length;
  const flags = `${session.isSubscribed ? 'P' : ''}${session.multi === undefined ? '' : 'x'}` || 'N';
  return [
    `id=${session.id}`,
    `addr=${session.outlet.address}`,
    `laddr=${session.outlet.localAddress}`,
    `name=${session.name}`,
    `age=${Math.floor((now - session.createdMs) / 1000)}`,
    `idle=${Math.max(0, Math.floor((now - session.lastCommandMs) / 1000))}`,
    `flags=${flags}`,
    `db=${session.database}`,
    `sub=${session.channels.size}`,
    `psub=${session.patterns.size}`,
    `ssub=0`,
    `multi=${multi}`,
    `qbuf=${session.outlet.inputBytes}`,
    `obl=0`,
    `omem=${session.outlet.outputBytes}`,
    `cmd=${session.lastCommand}`,
    `user=${DEFAULT_USER}`,
    `resp=${session.protocol}`,
    `lib-name=${session.libraryName}`,
    `lib-ver=${session.libraryVersion}`,
  ].join(' ');
}

function kill(session: Session, args: readonly Buffer[]): void {
  const { server } = session;
  if (args.length === 3) {
    const address = latin1(args[2]);
    const target = server.sessions().find((other) => other.outlet.address === address);
    if (target === undefined) throw new CommandError('ERR No such client');
    end(session, target);
    session.reply.ok();
    return;
  }
  if (args.length % 2 !== 0) throw syntaxError();
  const tests: ((other: Session) => boolean)[] = [];
  let skipsMe = true;
  for (let i = 2; i < args.length; i += 2) {
    const value = latin1(args[i + 1]);
    switch (wordOf(args[i])) {
      case 'ID': {
        const id = numberOf(args[i + 1], 'ERR client-id should be greater than 0');
        if (id < 1) throw new CommandError('ERR client-id should be greater than 0');
        tests.push((other) => other.id === id);
        break;
      }
      case 'ADDR':
        tests.push((other) => other.outlet.address === value);
        break;
      case 'LADDR':
        tests.push((other) => other.outlet.localAddress === value);
        break;
      case 'USER':
        tests.push(() => value === DEFAULT_USER);
        break;
      case 'TYPE':
        tests.push(ofType(value));
        break;
      case 'SKIPME':
        if (!/^(?:yes|no)$/i.test(value)) throw syntaxError();
        skipsMe = value.toLowerCase() === 'yes';
        break;
      default:
        throw syntaxError();
    }
  }
  const doomed = server.sessions().filter((other) => !(skipsMe && other === session) && tests.every((test) => test(other)));
  for (const other of doomed) end(session, other);
  session.reply.integer(doomed.length);
}

/** @throws CommandError when there is no such type */
function ofType(name: string): (session: Session) => boolean {
  const type = name.toLowerCase();
  if (!['normal', 'master', 'replica', 'slave', 'pubsub'].includes(type)) throw new CommandError(`ERR Unknown client type '${name}'`);
  return (session) => (session.isSubscribed ? 'pubsub' : 'normal') === type;
}

/** Ends a client; oneself gets the reply first. */
function end(session: Session, target: Session): void {
  if (target === session) session.outlet.end();
  else target.outlet.kill();
}

function setReplyMode(session: Session, mode: string): void {
  if (mode === 'ON') {
    session.replyOn();
    session.reply.ok();
  } else if (mode === 'OFF') {
    session.isReplyOff = true;
  } else if (mode === 'SKIP') {
    if (!session.isReplyOff) session.isNextReplySkipped = true;
  } else {
    throw syntaxError();
  }
}

function client(session: Session, args: Buffer[]): void {
  const { reply, server } = session;
  switch (wordOf(args[1])) {
    case 'ID':
      reply.integer(session.id);
      return;
    case 'GETNAME':
      if (session.name === '') reply.nil();
      else reply.text(session.name);
      return;
    case 'SETNAME':
      session.name = checkedName(args[2]);
      reply.ok();
      return;
    case 'SETINFO': {
      const what = wordOf(args[2]);
      if (what === 'LIB-NAME') session.libraryName = checkedName(args[3]);
      else if (what === 'LIB-VER') session.libraryVersion = checkedName(args[3]);
      else throw new CommandError(`ERR Unrecognized option '${args[2].toString('latin1', 0, 128)}'`);
      reply.ok();
      return;
    }
    case 'INFO':
      reply.verbatim(`${describe(session)}\n`);
      return;
    case 'LIST': {
      let sessions = server.sessions();
      if (args.length > 2) {
        const word = wordOf(args[2]);
        if (word === 'TYPE' && args.length === 4) {
          sessions = sessions.filter(ofType(latin1(args[3])));
        } else if (word === 'ID' && args.length > 3) {
          const ids = new Set(args.slice(3).map((id) => numberOf(id, 'ERR Invalid client ID')));
          sessions = sessions.filter((other) => ids.has(other.id));
        } else {
          throw syntaxError();
        }
      }
      reply.verbatim(sessions.map((other) => `${describe(other)}\n`).join(''));
      return;
    }
    case 'KILL':
      kill(session, args);
      return;
    case 'REPLY':
      setReplyMode(session, wordOf(args[2]));
      return;
    case 'NO-EVICT':
    case 'NO-TOUCH': {
      const word = wordOf(args[2]);
      if (word !== 'ON' && word !== 'OFF') throw syntaxError();
      reply.ok();
      return;
    }
    case 'UNBLOCK':
      numberOf(args[2]);
      reply.integer(0);
      return;
    case 'GETREDIR':
      reply.integer(-1);
      return;
    case 'UNPAUSE':
      server.unpause();
      reply.ok();
      return;
    case 'PAUSE': {
      const ms = numberOf(args[2], 'ERR timeout is not an integer or out of range');
      if (ms < 0) throw new CommandError('ERR timeout is negative');
      if (args.length > 4) throw syntaxError();
      const mode = args.length === 4 ? wordOf(args[3]) : 'ALL';
      if (mode !== 'ALL' && mode !== 'WRITE') throw new CommandError('ERR CLIENT PAUSE mode must be WRITE or ALL');
      server.pause(ms);
      reply.ok();
      return;
    }
    case 'TRACKING':
    case 'CACHING':
      throw new CommandError(`ERR CLIENT ${wordOf(args[1])} is not supported: this server keeps no record of what clients have read`);
    case 'HELP':
      replyHelp(session, [
        'CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:',
        'GETNAME',
        'ID',
        'INFO',
        'KILL <option>',
        'LIST [options ...]',
        'NO-EVICT (ON|OFF)',
        'PAUSE <timeout> [WRITE|ALL]',
        'REPLY (ON|OFF|SKIP)',
        'SETINFO <option> <value>',
        'SETNAME <name>',
        'UNPAUSE',
        'HELP',
      ]);
      return;
    default:
      throw unknownSubcommand(args);
  }
}

/** HTTP that was sent to the wrong port, maybe by a browser that was told to: nothing of it may run. */
function notRedis(session: Session): void {
  session.server.log.warn(
    { client: session.outlet.address },
    'an HTTP request came to the RESP port; the connection was cut. Somebody may be attacking through a browser',
  );
  session.outlet.kill();
}

const ALWAYS = ['noscript', 'loading', 'stale', 'fast'] as const;

export const connectionCommands: readonly Command[] = [
  {
    name: 'auth',
    arity: -2,
    flags: [...ALWAYS, 'no_auth', 'no_multi'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Says the password.',
    run: auth,
  },
  {
    name: 'hello',
    arity: -1,
    flags: [...ALWAYS, 'no_auth'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Chooses the protocol, says the password.',
    run: hello,
  },
  { name: 'ping', arity: -1, flags: ['fast'], keys: NO_KEYS, group: 'connection', summary: 'Replies.', run: ping },
  {
    name: 'echo',
    arity: 2,
    flags: ['loading', 'stale', 'fast'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Replies with what was said.',
    run: (session, args) => session.reply.bulk(args[1]),
  },
  {
    name: 'quit',
    arity: -1,
    flags: [...ALWAYS, 'no_auth'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Ends the connection.',
    run: quit,
  },
  {
    name: 'reset',
    arity: 1,
    flags: [...ALWAYS, 'no_auth'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Makes the connection as new.',
    run: reset,
  },
  {
    name: 'client',
    arity: -2,
    subcommands: {
      caching: 3,
      getname: 2,
      getredir: 2,
      help: 2,
      id: 2,
      info: 2,
      kill: -3,
      list: -2,
      'no-evict': 3,
      'no-touch': 3,
      pause: -3,
      reply: 3,
      setname: 3,
      setinfo: 4,
      tracking: -3,
      unblock: -3,
      unpause: 2,
    },
    flags: ['admin', 'noscript', 'loading', 'stale'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'Names, lists and ends clients.',
    run: client,
  },
  {
    name: 'post',
    arity: -1,
    flags: [...ALWAYS, 'no_auth'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'No command: HTTP is cut off.',
    run: notRedis,
  },
  {
    name: 'host:',
    arity: -1,
    flags: [...ALWAYS, 'no_auth'],
    keys: NO_KEYS,
    group: 'connection',
    summary: 'No command: HTTP is cut off.',
    run: notRedis,
  },
];
