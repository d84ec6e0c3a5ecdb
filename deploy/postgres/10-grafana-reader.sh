#!/bin/sh
# Grafana reads, and only reads: what the collector creates later is readable, tokens and the audit log are not (the collector makes the tables,
# so the grant is by event, see the trigger).
set -eu
password=$(cat "${GRAFANA_READER_PASSWORD_FILE:-/run/secrets/grafana_reader_password}")
psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set "password=$password" <<'SQL'
CREATE ROLE grafana_reader LOGIN PASSWORD :'password' CONNECTION LIMIT 10;
ALTER ROLE grafana_reader SET default_transaction_read_only = on;
ALTER ROLE grafana_reader SET statement_timeout = '30s';
GRANT USAGE ON SCHEMA public TO grafana_reader;
CREATE FUNCTION grant_to_grafana() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
    FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
        IF made.object_identity IN ('public.runs', 'public.attempts', 'public.agents', 'public.run_events', 'public.step_summaries',
                                    'public.incidents', 'public.incident_history', 'public.outbox', 'public.silences', 'public.goodput_hours', 'public.breaks') THEN
            EXECUTE format('GRANT SELECT ON %s TO grafana_reader', made.object_identity);
        END IF;
    END LOOP;
END $$;
CREATE EVENT TRIGGER grant_to_grafana ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION grant_to_grafana();
SQL
