select cast(placed_at as date) as day, count(*) as orders, sum(total) as revenue
from orders
where status <> 'cancelled'
group by day
order by day
