import { type RouteConfig, route } from '@react-router/dev/routes';

export default [route(':room', './routes/room.tsx')] satisfies RouteConfig;
